//! Providers as data: the strict loader and the built-in catalogue.
