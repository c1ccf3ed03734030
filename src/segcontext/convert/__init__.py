"""Conversions between the ways in which labels are kept, and a folder of one's own.

```text
from_coco.py       objects of a COCO file → index masks        rle.py, shapes.py, drawing.py
from_labelme.py    shapes of labelme's files → index masks
from_colours.py    masks that store colours → index masks      class_table.py
├── target.py      the folder that they write: images, masks, classes file
to_coco.py         any data set → a COCO file                  outlines.py
kinds.py           tells what a file or folder is
```
"""

from segcontext.convert.class_table import ClassTable, read_class_table
from segcontext.convert.from_coco import from_coco
from segcontext.convert.from_colours import from_colours
from segcontext.convert.from_labelme import from_labelme
from segcontext.convert.kinds import Kind, kind_of
from segcontext.convert.outlines import trace_outlines
from segcontext.convert.rle import decode_rle, encode_rle
from segcontext.convert.running import Conversion, Failure
from segcontext.convert.shapes import fill_polygon
from segcontext.convert.target import FolderTarget
from segcontext.convert.to_coco import to_coco

__all__ = [
    "ClassTable",
    "Conversion",
    "Failure",
    "FolderTarget",
    "Kind",
    "decode_rle",
    "encode_rle",
    "fill_polygon",
    "from_coco",
    "from_colours",
    "from_labelme",
    "kind_of",
    "read_class_table",
    "to_coco",
    "trace_outlines",
]
