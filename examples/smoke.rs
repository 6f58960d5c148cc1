use plimsoll::agent::*;
#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let (h, r) = plimsoll::agent::run(Options{root: Some(args[1].clone().into()), manifests: vec![args[2].clone().into()], foreground: true}).await.unwrap();
    let (past, mut ev) = h.events(0);
    for e in past { println!("{} {:?} {} {} {}", e.at, e.kind, e.object, e.reason, e.message); }
    let hh = h.clone();
    tokio::spawn(async move { tokio::signal::ctrl_c().await.unwrap(); println!("{:?}", hh.command(Command::StopAll{kill:false},0).await); });
    tokio::spawn(async move { loop { let e = ev.recv().await.unwrap(); println!("{} {:?} {} {} {}", e.at, e.kind, e.object, e.reason, e.message); } });
    r.wait().await;
}
