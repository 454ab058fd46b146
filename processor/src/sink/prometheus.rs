//! The text exposition of the committed view.
