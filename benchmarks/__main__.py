"""``python -m benchmarks envs | full | run | memory | table | chart``: see README.md in this folder."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks import cases, envs, full, implementations, report, run


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("envs", help="create the peers' environments")
    command.add_argument("peers", nargs="*")
    command = commands.add_parser("full", help="everything that the project reports")
    command.add_argument("names", nargs="*", choices=[[], *full.TITLES], help="documents; default all")
    command.add_argument("--rounds", type=int, default=15)
    command.add_argument("--out", type=Path, default=Path(__file__).with_name("results"))
    command = commands.add_parser("run", help="check and time")
    _choices(command)
    command.add_argument("--threads", default="1", help="1, 2 or 1,2 (both interleaved)")
    command.add_argument("--rounds", type=int, default=15)
    command.add_argument(
        "--instruction-sets", action="store_true", help="structlv on AVX-512, AVX2 and the base"
    )
    command.add_argument("--smoke", action="store_true", help="tiny cases, this environment only")
    command = commands.add_parser("memory", help="peak memory of fresh processes")
    _choices(command)
    for name in ("table", "chart"):
        command = commands.add_parser(name, help=f"a {name} of a results file")
        command.add_argument("file", type=Path)
        command.add_argument("--measure", choices=["wall", "cpu"], default="wall")
        command.add_argument("--out", type=Path)
    return parser.parse_args()


def _choices(command: argparse.ArgumentParser) -> None:
    command.add_argument("--case", action="append", help="query:SIZE[:dtype] or a query; default all")
    command.add_argument("--only", help="implementations, comma-separated")
    command.add_argument("--out", type=Path)


def chosen_cases(wanted: list[str] | None) -> list[cases.Case]:
    """Cases by full name, or all sizes of a query."""
    everything = cases.full()
    if wanted is None:
        return everything
    return [
        case
        for text in wanted
        for case in ([cases.parse(text)] if ":" in text else [one for one in everything if one.query == text])
    ]


def do_run(options: argparse.Namespace) -> None:
    default = (*implementations.OURS, *implementations.PEERS)
    effort = run.Effort(rounds=options.rounds)
    chosen = chosen_cases(options.case)
    if options.smoke:
        chosen, effort = cases.smoke(), run.Effort(rounds=2, sample_seconds=0.001)
        default = tuple(one for one in default if one.environment == "")
    if options.instruction_sets:
        default = implementations.INSTRUCTION_SETS
    threads = [int(count) for count in options.threads.split(",")]
    document = run.run(chosen, implementations.named(options.only, default), threads, effort)
    if options.out:
        run.save(document, options.out)
    if options.smoke and (wrong := run.unanswered(document)):
        raise SystemExit("without a checked result:\n" + "\n".join(wrong))


def do_memory(options: argparse.Namespace) -> None:
    default = (implementations.OURS[0], *implementations.PEERS)
    chosen = [case for case in chosen_cases(options.case) if options.case or case.query.endswith("grad")]
    found = run.memory(chosen, implementations.named(options.only, default))
    for one in found:
        text = f"{one['peak_bytes'] / 2**20:10.1f} MiB" if "peak_bytes" in one else one["status"]
        print(f"{one['case']:40s} {one['implementation']:20s} {text}")
    if options.out:
        run.save({"memory": found}, options.out)


def draw(document: dict, options: argparse.Namespace) -> None:
    if options.command == "chart":
        from benchmarks import chart  # the only part that needs matplotlib

        chart.chart(document, options.out, options.measure)
    elif options.out:
        options.out.write_text(report.text(document, options.measure))
    else:
        print(report.text(document, options.measure))


def main() -> None:
    options = parse()
    if options.command == "envs":
        envs.main(options.peers)
    elif options.command == "full":
        full.main(options.out, run.Effort(rounds=options.rounds), options.names)
    elif options.command == "run":
        do_run(options)
    elif options.command == "memory":
        do_memory(options)
    else:
        draw(json.loads(options.file.read_text()), options)


if __name__ == "__main__":
    main()
