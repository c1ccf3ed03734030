"""What networks cost: parameters, multiply-adds, memory and latency, per part; and the papers' tables beside ours."""

from segcontext.costs.counter import OperationCounter
from segcontext.costs.network_cost import CONVENTION, Cost, PartCost, cost
from segcontext.costs.rendering import Format, cost_columns, render, table_columns
from segcontext.costs.tables import SIZES, TableName, paper_table
from segcontext.costs.timing import latency

__all__ = [
    "CONVENTION",
    "SIZES",
    "Cost",
    "Format",
    "OperationCounter",
    "PartCost",
    "TableName",
    "cost",
    "cost_columns",
    "latency",
    "paper_table",
    "render",
    "table_columns",
]
