"""The one expression language of Attune: of conditions, templates and workflows.

Jinja's expression grammar on JSON values, in a closed sandbox. What is not there is *missing*: it equals nothing,
differs from nothing, and is false. Evaluation is pure, bounded, and raises nothing but ExpressionError.
"""

from attune.base.expressions.expression import Expression, compile_expression
from attune.base.expressions.functions import Function
from attune.base.expressions.language import STANDARD, Language
from attune.base.expressions.run import Run
from attune.base.expressions.templates import Template, compile_template, has_template, problems, resolve
from attune.base.expressions.values import MISSING, ExpressionError, Missing, Value

__all__ = [
    "MISSING",
    "STANDARD",
    "Expression",
    "ExpressionError",
    "Function",
    "Language",
    "Missing",
    "Run",
    "Template",
    "Value",
    "compile_expression",
    "compile_template",
    "has_template",
    "problems",
    "resolve",
]
