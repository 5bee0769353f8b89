//! Draws the plots of the README anew: `just pace-plots`.
#![expect(clippy::print_stdout, reason = "says what it has done")]

mod drive;
mod plot;
mod runs;

use std::path::Path;

fn main() -> std::io::Result<()> {
    for run in runs::plotted() {
        let course = drive::drive(&run);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(run.plot());
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&path, plot::svg(&run, &course))?;
        println!(
            "{}, {:?}: {:.1}% of the limit, {:.2}% of {} requests throttled",
            run.name,
            run.known,
            100.0 * course.used(run.sustained(&course)),
            100.0 * course.throttled(),
            course.requests()
        );
    }
    Ok(())
}
