"""Help that comes at once, and examples in it that can be pasted."""

import shlex
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from edxdenoise.cli import main

HEAVY = {"tensorflow", "dask_ml", "matplotlib", "xarray", "dask", "distributed", "sklearn", "numpy"}
COMMANDS = main.list_commands(click.Context(main))

LOADED = """
import sys
try:
    {statement}
finally:
    print("loaded", *sorted({{name.partition(".")[0] for name in sys.modules}}))
"""


def loaded_by(statement):
    code = LOADED.format(statement=statement)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    line = [line for line in result.stdout.splitlines() if line.startswith("loaded ")][-1]
    return set(line.split()), result


def test_help_loads_nothing_heavy():
    statement = "import edxdenoise.cli; edxdenoise.cli.main(['--help'])"
    modules, result = loaded_by(statement)
    assert "click" in modules and "Commands:" in result.stdout
    assert not modules & (HEAVY | {"rich"})


@pytest.mark.parametrize("command", ["denoise", "info"])
def test_help_of_a_command_loads_nothing_heavy(command):
    statement = f"import edxdenoise.cli; edxdenoise.cli.main(['{command}', '--help'])"
    assert not loaded_by(statement)[0] & HEAVY


@pytest.mark.slow
@pytest.mark.parametrize("statement", ["import edxdenoise", "import edxdenoise.pipeline"])
def test_import_loads_no_tensorflow_dask_ml_matplotlib(statement):
    modules, _ = loaded_by(statement)
    assert not modules & {"tensorflow", "dask_ml", "matplotlib", "distributed", "rsciio"}


def test_the_nearest_command_is_suggested():
    result = CliRunner().invoke(main, ["denois"])
    assert result.exit_code == 2 and "did you mean 'denoise'?" in result.output


def test_summaries_of_commands_are_not_cut():
    result = CliRunner().invoke(main, ["--help"])
    assert "..." not in result.output.partition("Commands:")[2]


def test_run_as_a_module():
    result = subprocess.run(
        [sys.executable, "-m", "edxdenoise", "--version"], capture_output=True, text=True
    )
    assert result.stdout.startswith("edxdenoise, version ")


def examples(command):
    help_text = main.get_command(click.Context(main), command).help
    lines = map(str.strip, help_text.splitlines())
    return [line for line in lines if line.startswith("edxdenoise ")]


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_can_be_pasted(name):
    command = main.get_command(click.Context(main), name)
    assert examples(name), f"'{name} --help' has no example"
    for line in examples(name):
        program, called, *args = shlex.split(line)
        assert (program, called) == ("edxdenoise", name)
        # Parsing alone: it raises for what the parser does not know, and runs nothing.
        context = command.make_context(name, args)
        assert context.params


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_does(name):
    command = main.get_command(click.Context(main), name)
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help or isinstance(option.type, click.Choice) or option.metavar, option


def test_every_computing_command_takes_the_same_options():
    for name in ("info", "convert", "denoise", "compare", "report", "simulate", "demo"):
        command = main.get_command(click.Context(main), name)
        assert {"scheduler", "workers", "memory_limit"} <= {p.name for p in command.params}
