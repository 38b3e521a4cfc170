"""Tables on a narrow terminal."""

from rich.console import Console

from structlv.cli.show import new_table, print_table


def test_numbers_are_never_cut(capsys):
    """The words beside them give way."""
    table = new_table("States", "state", "use", "words", right="state use")
    table.add_row("13", "4.9%", " ".join(["philadelphia"] * 20))
    print_table(Console(width=60), table)
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.split()[:2] == ["13", "4.9%"]
    assert len(line.rstrip()) <= 60
