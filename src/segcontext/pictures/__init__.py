"""Pictures of labels, drawn with numpy and Pillow alone.

Images are uint8 RGB arrays, (H, W, 3); labels are integer arrays, (H, W), with 255 for void. A class index wins over
void where a palette has more than 255 colours.
"""

from segcontext.files import atomic_path
from segcontext.pictures.arrays import VOID_COLOUR, Colour, Palette, Pixels
from segcontext.pictures.painting import colourise, error_map, overlay
from segcontext.pictures.palette import default_palette
from segcontext.pictures.saving import save_labels, save_picture
from segcontext.pictures.sheets import grid, legend

__all__ = [
    "VOID_COLOUR",
    "Colour",
    "Palette",
    "Pixels",
    "atomic_path",
    "colourise",
    "default_palette",
    "error_map",
    "grid",
    "legend",
    "overlay",
    "save_labels",
    "save_picture",
]
