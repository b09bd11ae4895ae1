"""``python -m serving.local FOLDER``: detach, then supervise the service in that folder."""

import os
import sys
from pathlib import Path

if os.fork():
    os._exit(0)  # whoever started this does not have to wait for the supervisor, nor reap it

from serving.local.supervisor import main

sys.exit(main(Path(sys.argv[1])))
