"""Train and run models on this machine's CPU or GPU."""

import logging
import os

# No telemetry: read by huggingface_hub when it is first imported, which any module here may cause.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# bitsandbytes, which peft imports, warns about optional kernels and about every cast.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
