"""lm-evaluation-harness's own command line with our model in it: `forgetless-lm-eval --tasks arc_easy ...`.

The harness finds models by name in its own table and knows no plug-ins, so something has to import ours first. Beyond
that, and that `--model forgetless` is the default, nothing differs from `lm-eval`.
"""

from __future__ import annotations

import sys

from forgetless.errors import ForgetlessError
from forgetless.evaluate.harness_suite import harness_version


def main() -> None:
    """Runs lm-eval; ends with one sentence and exit code 2 where the harness is missing or a setting can't be used."""
    try:
        harness_version()
        from lm_eval.__main__ import cli_evaluate

        import forgetless.evaluate.harness  # noqa: F401  # registers the model

        sys.argv = with_default_model(sys.argv)
        cli_evaluate()
    except ForgetlessError as error:
        print(f"error {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def with_default_model(arguments: list[str]) -> list[str]:
    """Returns a command line with `--model forgetless` where it evaluates and names no model."""
    rest = arguments[1:]
    evaluates = bool(rest) and (rest[0] == "run" or rest[0].startswith("-")) and not {"-h", "--help"} & set(rest)
    has_model = any(part in ("--model", "-M", "--config", "-C") or part.startswith("--model=") for part in rest)
    return [*arguments, "--model", "forgetless"] if evaluates and not has_model else arguments


if __name__ == "__main__":
    main()
