"""survey_site: the survey and the notebooks as one folder of pages, made without a network."""

_ENVIRONMENT = {
    "LITREV_ROOT": ".",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONPATH": ".",
    "PYTHONUTF8": "1",
    "SOURCE_DATE_EPOCH": "1767225600",  # a fixed day: the same sources give the same bytes
}

def _survey_site_impl(ctx):
    folder = ctx.actions.declare_directory(ctx.label.name)
    ctx.actions.run(
        outputs = [folder],
        inputs = ctx.files.srcs + [ctx.file._python],
        executable = ctx.file._python,
        arguments = ["-m", "tools.survey.build", folder.path],
        env = _ENVIRONMENT,
        execution_requirements = {"block-network": "1"},
        mnemonic = "Survey",
        progress_message = "Building the site of the survey",
    )
    return [DefaultInfo(files = depset([folder]), runfiles = ctx.runfiles([folder]))]

survey_site = rule(
    _survey_site_impl,
    attrs = {
        "srcs": attr.label_list(doc = "texts, notebooks, ledgers, and the code that reads them", allow_files = True),
        "_python": attr.label(default = "@litrev_survey_env//:python", allow_single_file = True),
    },
)
