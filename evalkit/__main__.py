"""`python -m evalkit` is `evalkit`."""

import sys

from evalkit.cli.main import main

sys.exit(main())
