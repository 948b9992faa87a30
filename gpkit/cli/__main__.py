"""``python -m gpkit.cli``."""

from gpkit.cli import main

raise SystemExit(main())
