"""nbgrader's settings: which folder is which, what a learner must not get, and how grading runs."""

import os
import sys
from importlib.util import find_spec

c = get_config()  # noqa: F821  (nbgrader provides it)

# nbgrader starts `alembic` by its name, also where this environment is used without having been activated.
os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])

c.CourseDirectory.course_id = "mechinterp"
c.CourseDirectory.source_directory = "solutions"
c.CourseDirectory.release_directory = "chapters"

# nbgrader copies the other files of an assignment's folder to the learners, and those beside a submission, links
# followed, to where it grades. The masters hold all solutions, and a submission is its notebooks: no other file counts.
c.CourseDirectory.ignore = ["*"]

c.ClearSolutions.code_stub = {"python": "# YOUR CODE HERE\nraise NotImplementedError()"}
c.ClearSolutions.text_stub = "YOUR ANSWER HERE"

# A notebook that can't be read costs its own points, and not those of the chapter's other parts.
c.Autograde.exporter_class = "utils.grading.gradebook.ReadOrBlank"

# nbgrader's own steps with ours among them: copied, deleted or damaged cells cost no honest points; what a student
# wrote runs in a process that is shut in, and not in a kernel of the instructor's; who grades by hand sees the rubric
# beside the answer. Whole lists, as nbgrader reads this file more than once and would insert a step each time.
c.Autograde.sanitize_preprocessors = [
    "utils.course.autograding.RestoreCells",
    "nbgrader.preprocessors.ClearOutput",
    "nbgrader.preprocessors.DeduplicateIds",
    "nbgrader.preprocessors.OverwriteKernelspec",
    "nbgrader.preprocessors.OverwriteCells",
    "nbgrader.preprocessors.CheckCellMetadata",
]
c.Autograde.autograde_preprocessors = [
    "utils.grading.gradebook.GradeInWorker",
    "nbgrader.preprocessors.IgnorePattern",
    "nbconvert.preprocessors.ClearMetadataPreprocessor",
    "nbgrader.preprocessors.LimitOutput",
    "nbgrader.preprocessors.SaveAutoGrades",
    "utils.grading.gradebook.KeepBroken",
    "nbgrader.preprocessors.AssignLatePenalties",
    "nbgrader.preprocessors.CheckCellMetadata",
    "utils.course.autograding.ShowRubrics",
]

# Who gets feedback reads what is theirs.
c.GenerateFeedback.preprocessors = [
    "nbgrader.preprocessors.GetGrades",
    "utils.course.autograding.ShortFeedback",
    "nbconvert.preprocessors.CSSHTMLHeaderPreprocessor",
]
c.ExportApp.plugin_class = "utils.course.autograding.ExportWithStatus"

# For `nbgrader validate`, which runs a whole notebook. The kernel's own log lines are no news to an instructor.
c.Execute.timeout = 300
c.Execute.extra_arguments = ["--IPKernelApp.log_level=ERROR"]

# A check's report is up to 110 columns wide; `nbgrader validate` would cut it at 90.
c.Validator.width = 120

# The page for grading by hand has a template of ours, so that it works without a network.
c.HTMLExporter.extra_template_basedirs = [
    os.path.join(os.path.dirname(find_spec(package).origin), *folders)
    for package, *folders in (
        ("utils.course", "templates"),
        ("nbgrader", "server_extensions", "formgrader", "templates"),
    )
]
