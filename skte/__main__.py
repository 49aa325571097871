"""Makes ``python -m skte`` the same as the ``skte`` command."""

from skte.cli import main

raise SystemExit(main())
