"""A real server whose patience is short, for tests: python -m tests.serve.impatient PORT [KEY]"""

import sys

from edgellm.commands.serve import _served
from edgellm.engine.builds.installed import require
from edgellm.serve.options import ServeOptions
from edgellm.serve.server import serve
from edgellm.serve.workers.catalog import Catalog
from edgellm.ui.console import note
from edgellm.workspace import workspace

if __name__ == "__main__":
    here = workspace(offline=True)
    options = ServeOptions(
        port=int(sys.argv[1]), n_slots=2, n_ctx=1024, api_keys=frozenset(sys.argv[2:]),
        head_seconds=1, body_seconds=1, stall_seconds=3,
    )  # fmt: skip
    catalog = Catalog(_served(here, ["smollm2"], quiet=True))
    serve(
        options,
        catalog,
        require(here.settings, here.stack),
        here.settings,
        on_ready=lambda _: note(options.url),
    )
