"""The doctor: examines a data set before a training, names what is wrong and the lines that mend it.

```text
surveying.py       opens every split there is; lenient.py and loose.py where something is wrong
├── survey.py      what lies in the folder: splits, pairs, how they are read
probe.py           one image with its mask; mask_probe.py, objects.py, fingerprint.py
├── tally.py       the sums of a split
copies.py          images that look alike; near.py finds the pairs
checks_*.py        findings: layout, files, labels, palettes, classes, copies
├── values*.py     mistakes in what the masks hold, told from label_facts.py; regroup.py parts the splits anew
diagnosis.py       all of it, with the lines that mend; page.py, terminal.py show it
```
"""

from segcontext.doctor.diagnosis import Diagnosis, check_target
from segcontext.doctor.examining import examine
from segcontext.doctor.finding import Example, Finding, Mend
from segcontext.doctor.terminal import print_diagnosis

__all__ = ["Diagnosis", "Example", "Finding", "Mend", "check_target", "examine", "print_diagnosis"]
