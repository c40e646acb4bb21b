//! Takes frames through one stage of the datapath: `stages STAGE FRAMES`. Without arguments, it lists the stages. For `scripts/instructions`.

use bench::stages::{FRAMES, STAGES};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, frames] = &arguments[..] else {
        STAGES.iter().for_each(|stage| println!("{:14} {}", stage.name, stage.says));
        return;
    };
    let stage = STAGES.iter().find(|stage| stage.name == name).expect("a stage: run it without arguments for a list");
    let mut step = stage.prepare();
    for _ in 0..frames.parse::<usize>().expect("a number of frames") / FRAMES {
        step();
    }
}
