"""`python3 -m models.checkpoints`: converts weights, branches runs (models/checkpoints/convert.py)."""
if __name__ == "__main__":  # before the imports that may fail
    from configs import start
    start.begin()

from configs import commands, storage
from models.checkpoints import convert

if __name__ == "__main__":
    storage.silence_tensorflow()
    commands.run(convert.main)
