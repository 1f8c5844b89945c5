//! Limits that only another kernel's settings make: Yama, promised memory, mappings, user namespaces off; in a virtual machine of its own.

use anyhow::{Context, Result, ensure};
use ckpt_tests::User;
use ckpt_tests::programs::{Link, build};
use ckpt_tests::vms::{Done, Machine, Options, fetch};

/// A virtual machine with a guest, which is saved there to `/tmp/job.ckpt`, and whose check waits for `/tmp/go`.
fn machine(name: &'static str) -> Result<Machine> {
    let mut machine = Machine::boot(&fetch(name)?, &Options::default())?;
    machine.put("/tmp/guest", &std::fs::read(build("large", Link::Static)?)?)?;
    machine.must("chmod 755 /tmp/guest; chmod 1777 /tmp; mkdir -p -m 777 /tmp/n; touch /tmp/go")?;
    Ok(machine)
}

/// Starts the guest as this user, saves and kills it.
fn saved(machine: &mut Machine, user: User, guest: &str) -> Result<()> {
    machine.must("rm -f /tmp/job.ckpt /tmp/go /tmp/out")?;
    let script = format!(
        "cd /tmp; GUEST_GO=/tmp/go ./guest {guest} >out 2>&1 </dev/null & pid=$!
        until grep -q ready out; do sleep 0.1; done; ckpt save $pid -o job.ckpt --kill; code=$?; touch go; exit $code"
    );
    let done = machine.run_as(user, &script)?;
    ensure!(done.code == 0, "{done:?}");
    Ok(())
}

fn refused(done: &Done, code: i32, says: &str) -> Result<()> {
    let said = format!("{}{}", done.text(), done.err);
    ensure!(done.code == code && said.contains(says), "expected {code} and '{says}': {done:?}");
    Ok(())
}

#[test]
fn settings_of_another_kernel() -> Result<()> {
    let mut machine = machine("6.12").context("virtual machine")?;
    for user in [User::Own, User::Nobody] {
        saved(&mut machine, user, "areas 300")?;
        let go_on = |machine: &mut Machine| -> Result<()> {
            let done = machine.run_as(user, "cd /tmp; exec restart-stub --files ignore job.ckpt </dev/null")?;
            ensure!(done.code == 0, "{done:?} {}", machine.console());
            Ok(())
        };
        go_on(&mut machine)?;
        // Few mappings.
        let before = machine.must("cat /proc/sys/vm/max_map_count")?;
        machine.must("sysctl -w vm.max_map_count=200 >/dev/null")?;
        refused(&machine.run_as(user, "restart-stub --files ignore /tmp/job.ckpt")?, 80, "max_map_count")?;
        refused(&machine.run_as(user, "ckpt restart --files ignore /tmp/job.ckpt")?, 80, "max_map_count")?;
        refused(&machine.run_as(user, "ckpt check /tmp/job.ckpt")?, 80, "max_map_count")?;
        machine.must(&format!("sysctl -w vm.max_map_count={before} >/dev/null"))?;
        // Memory is promised, and there is enough.
        machine.must("sysctl -w vm.overcommit_memory=2 vm.overcommit_ratio=90 >/dev/null")?;
        go_on(&mut machine)?;
        // No user namespaces.
        machine.must("sysctl -w user.max_user_namespaces=0 >/dev/null")?;
        if user == User::Nobody {
            refused(&machine.run_as(user, "ckpt restart --files ignore --namespace /tmp/job.ckpt")?, 80, "namespace")?;
            let check = machine.run_as(user, "ckpt check")?;
            ensure!(check.text().contains("--namespace: no"), "{check:?}");
        }
        machine.must("sysctl -w user.max_user_namespaces=1000 vm.overcommit_memory=0 >/dev/null")?;
        go_on(&mut machine)?;
    }
    promised_memory(&mut machine)?;
    // Yama: a process that is no descendant.
    let start = "cd /tmp/n; (GUEST_GO=/tmp/n/go setsid /tmp/guest areas 300 >out 2>&1 </dev/null & echo $! >pid); until grep -q ready out; do sleep 0.1; done";
    for scope in 1..=3 {
        machine.must("rm -f /tmp/n/*")?;
        machine.must(&format!("sysctl -w kernel.yama.ptrace_scope={scope} >/dev/null"))?;
        let done = machine.run_as(User::Nobody, &format!("{start}; ckpt save $(cat pid) -o /tmp/n/yama.ckpt"))?;
        refused(&done, 88, "may not be traced")?;
        let check = machine.run_as(User::Nobody, "ckpt check")?;
        ensure!(check.text().contains("ptrace-scope") && check.text().contains(&scope.to_string()), "{check:?}");
        machine.must("touch /tmp/n/go; until grep -q PASS /tmp/n/out; do sleep 0.1; done")?;
    }
    Ok(())
}

/// 64 MiB of writable memory where the kernel promises no more than there is: a restart, or a refusal that says so.
fn promised_memory(machine: &mut Machine) -> Result<()> {
    const MIB: u64 = 64;
    const RESTARTS: [&str; 2] = ["restart-stub", "ckpt restart"];
    for user in User::all() {
        saved(machine, user, &format!("holes {MIB}"))?;
        let promise = |machine: &mut Machine, more: u64| {
            let script = format!(
                "now=$(awk '/^Committed_AS/ {{ print $2 }}' /proc/meminfo)
                sysctl -w vm.overcommit_kbytes=$((now + {more} * 1024)) vm.overcommit_memory=2 >/dev/null"
            );
            machine.must(&script).map(drop)
        };
        // Of what there is, the system keeps 8 MiB for root.
        let (less, enough) = if user == User::Own { (MIB - 16, MIB + 12) } else { (MIB + 6, MIB + 26) };
        for much_less in [24, less] {
            promise(machine, much_less)?;
            refused(&machine.run_as(user, "ckpt restart /tmp/job.ckpt")?, 80, "this system promises")?;
            refused(&machine.run_as(user, "ckpt check /tmp/job.ckpt")?, 80, "this system promises")?;
            refused(&machine.run_as(user, "restart-stub /tmp/job.ckpt")?, 80, "this system promises")?;
        }
        promise(machine, enough)?;
        for restart in RESTARTS {
            let done = machine.run_as(user, &format!("cd /tmp; exec {restart} --files ignore job.ckpt </dev/null"))?;
            let said = machine.run("cat /tmp/out")?.text();
            ensure!(done.code == 0, "{restart} as {user:?}: {done:?} {said}");
        }
        let check = machine.run_as(user, "ckpt check --files ignore /tmp/job.ckpt")?;
        ensure!(check.code == 0, "{check:?}");
        machine.must("sysctl -w vm.overcommit_memory=0 >/dev/null")?;
    }
    Ok(())
}
