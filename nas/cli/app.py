"""The sub-commands, in the order in which `nas --help` lists them."""

from __future__ import annotations

import typer

from nas.cli import (
    bench,
    compare,
    cost,
    evaluate,
    export,
    inspect,
    lint,
    listing,
    prune,
    report,
    resume,
    sample,
    search,
    show,
    train,
)

app = typer.Typer(
    name="nas",
    help="Neural architecture search: search, train and export networks.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("search", help="Search for an architecture, and compare it with controls.")(search.command)
app.command("resume", help="Continue a run exactly where it was cut off.")(resume.command)
app.command("train", help="Train one network from scratch.")(train.command)
app.command("evaluate", help="Accuracy of a trained network.")(evaluate.command)
app.command("export", help="Write a network for use elsewhere; every format is loaded again and compared.")(
    export.command
)
app.command("show", help="An architecture, drawn.")(show.command)
app.command("list", help="What there is: spaces, strategies, data, recipes, runs ...")(listing.command)
app.command("cost", help="Parameters and multiply-adds of a network.")(cost.command)
app.command("sample", help="Random architectures of a space, one literal a line.")(sample.command)
app.command("lint", help="Check a space: size, costs, that samples build and train, what is wasted.")(
    lint.command
)
app.command("inspect", help="Pictures of what a network looks at, and of what it sees.")(inspect.command)
app.command("prune", help="Make a trained network smaller, step by step.")(prune.command)
app.command("compare", help="Train several networks under one recipe and budget, and compare them.")(
    compare.command
)
app.command("bench", help="Strategies on a table of known results, many seeds in seconds.")(bench.command)
app.command("report", help="One page to read about a run.")(report.command)
