"""Programs that stand in for those of the system."""
import stat


def executable(path, text):
    """Writes a shell script that can be run by its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
