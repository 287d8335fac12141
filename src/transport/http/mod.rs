//! The HTTP doors: public (callback) and operations (health, metrics).
