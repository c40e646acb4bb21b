mod groups;
mod meters;
mod reference;
mod semantics;
