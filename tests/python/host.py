"""What the tests of the Python package share: the package on the path, the small model, refusals by name."""
import os
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "models" / "nano"
AIR = Path(os.environ.get("GLM_TEST_DATA", ROOT / "tests" / "data")) / "golden" / "air-bf16"
sys.path.insert(0, str(ROOT / "bindings" / "python"))
sys.dont_write_bytecode = True

from glm45 import GlmError, Model  # noqa: E402

WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Get the weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
QUESTION = "What is the weather in Oslo?"
SUM = "What is 123 + 456?"
GREEDY = {"temperature": 0.0}


class Nano(unittest.TestCase):
    """Tests on the small model, each with a session of its own."""
    model: Model

    @classmethod
    def setUpClass(cls):
        cls.model = Model(NANO, threads=1)

    @classmethod
    def tearDownClass(cls):
        cls.model.close()

    def session(self, **options):
        session = self.model.session(**options)
        self.addCleanup(session.close)
        return session

    def fails(self, name, call, *arguments, **options):
        """Asserts the status of a refused call, and returns its error."""
        with self.assertRaises(GlmError) as caught:
            call(*arguments, **options)
        self.assertEqual(caught.exception.name, name, str(caught.exception))
        return caught.exception


def texts(events, *kinds):
    return "".join(e.text for e in events if isinstance(e, kinds))
