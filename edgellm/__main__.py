"""The program: `edgellm`, and `python -m edgellm`. What is slow to import comes after Ctrl-C is taken care of."""

from edgellm.early import leave_on_interrupt


def main() -> None:
    """Entry point."""
    leave_on_interrupt()
    from edgellm.cli import main as run

    run()


if __name__ == "__main__":
    main()
