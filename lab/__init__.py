"""lab: trains, keeps and records what the notebooks find; it knows nothing of any paper.

`training.fit` trains a network once and for all, `measure.measure` keeps what was measured, `claims` holds it against
the paper. What the papers are about is in `litrev`, which never imports this package.
"""
