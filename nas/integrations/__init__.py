"""The strategies and spaces inside other frameworks. Each module needs its package, and nothing else does.

`nas.integrations.tune`: every black-box strategy as a searcher of Ray Tune's.
`nas.integrations.optuna`: a space as define-by-run suggestions of an Optuna trial.
"""
