//! The stages of the datapath in nanoseconds: `cargo bench -p bench`.

use bench::stages::{FRAMES, STAGES};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn stages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stages");
    group.throughput(Throughput::Elements(FRAMES as u64));
    for stage in STAGES {
        let mut step = stage.prepare();
        group.bench_function(stage.name, |bencher| bencher.iter(&mut step));
    }
    group.finish();
}

criterion_group!(benches, stages);
criterion_main!(benches);
