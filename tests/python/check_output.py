"""check_output.py REGEX COMMAND...: runs the command; fine if it ends well, prints what the expression finds, and
complains of nothing on the way (an error would come with a status by name)."""
import re
import subprocess
import sys

done = subprocess.run(sys.argv[2:], capture_output=True, text=True, encoding="utf-8", timeout=100)
sys.stdout.write(done.stdout)
sys.stderr.write(done.stderr)
sys.exit(done.returncode or "GLM_E" in done.stderr or not re.search(sys.argv[1], done.stdout + done.stderr))
