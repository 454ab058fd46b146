//! What commit 6f5a53d wrote: this version derives the same from its logs.

mod results;
