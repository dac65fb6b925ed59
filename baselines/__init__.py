"""Hand-designed networks: plain modules, one file a family; importing this imports no torch.

`published.yaml` lists members with their exact figures, so that a network is found and its cost is read
without building it. The tests hold both directions: every entry builds to exactly its figures, and every
network function has an entry.
"""
