//! The composition root: the one file that names SQLite and reqwest, binds listeners and puts the broker together.
