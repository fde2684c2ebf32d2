"""`python3 -m models.checkpoints`: converts weights (models/checkpoints/convert.py)."""
import os
import warnings

if __name__ == "__main__":
    # Before TensorFlow is imported: none of its own lines.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)

from configs import commands
from models.checkpoints import convert

if __name__ == "__main__":
    commands.run(convert.main)
