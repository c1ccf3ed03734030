"""Other people's checkpoints: recognised by their tensors, rebuilt to the digit, and written back."""

from segcontext.importing.exporting import export_weights
from segcontext.importing.known import LAYOUTS
from segcontext.importing.layout import Layout
from segcontext.importing.recognition import import_weights
from segcontext.importing.run_folder import import_run

__all__ = ["LAYOUTS", "Layout", "export_weights", "import_run", "import_weights"]
