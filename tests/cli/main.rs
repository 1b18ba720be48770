//! The program as a user runs it: arguments in, output and exit code out. Nothing here calls the library.

mod conversation;
mod exits;
mod help;
mod interruption;
mod objects;
mod places;
mod reading;
mod secrets;
mod sources;
mod support;
