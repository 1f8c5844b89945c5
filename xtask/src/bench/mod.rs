//! stub
use crate::workspace::Workspace;
use anyhow::Result;
/// x
#[derive(clap::Args)]
pub struct Options {}
/// x
pub fn run(_ws: &Workspace, _o: &Options) -> Result<()> {
    Ok(())
}
