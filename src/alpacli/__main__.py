"""``python -m alpacli``: the same program where the installed command is not on the PATH, as in cron or a bare container."""

import sys

from alpacli.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
