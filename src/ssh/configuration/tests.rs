use super::*;

fn environment(folder: &Path, configuration: &str) -> Environment {
    let file = folder.join("config");
    std::fs::write(&file, configuration).unwrap();
    let mut environment = Environment::new(Some("/home/zoe".into()), "zoe", SystemTime::now);
    environment.ssh_program = Environment::find_ssh(OsStr::new("/usr/bin:/bin"));
    environment.configuration_file = Some(file);
    environment
}

fn request(name: &str) -> Request {
    Request { name: name.into(), ..Request::default() }
}

async fn resolve(configuration: &str, request: &Request) -> Option<Destination> {
    let folder = tempfile::tempdir().unwrap();
    let environment = environment(folder.path(), configuration);
    environment.ssh_program.as_ref()?;
    Some(Resolver::default().resolve(&environment, request).await.unwrap().destination)
}

#[tokio::test]
async fn the_configuration_decides_what_the_inventory_leaves_open() {
    let text = "Host web*\n HostName %h.example.com\n User deploy\n Port 2200\n HostKeyAlias Web\n\
                IdentityFile ~/.ssh/%r_%n\n IdentitiesOnly yes\n StrictHostKeyChecking accept-new\n\
                UserKnownHostsFile \"/k/with space\" /k/two\n ConnectTimeout 7\n ServerAliveInterval 4\n\
                ProxyCommand nc %h %p %%\n";
    let Some(found) = resolve(text, &request("web1")).await else {
        return;
    };
    assert_eq!(
        (found.host.as_str(), found.port, found.user.as_str()),
        ("web1.example.com", 2200, "deploy")
    );
    assert_eq!(
        found.identity_files,
        [IdentityFile { path: "/home/zoe/.ssh/deploy_web1".into(), named: true }]
    );
    assert!(found.identities_only);
    assert_eq!(found.host_keys.user_files, [PathBuf::from("/k/with space"), "/k/two".into()]);
    assert_eq!(found.host_keys.alias.as_deref(), Some("web"));
    assert_eq!(found.host_keys.unknown, UnknownHostKey::Append);
    assert_eq!(found.connect_timeout, Duration::from_secs(7));
    assert_eq!(found.keepalive.interval, Some(Duration::from_secs(4)));
    assert_eq!(found.proxy_command.as_deref(), Some("nc web1.example.com 2200 %"));

    let asked = Request {
        host: Some("10.0.0.5".into()),
        port: Some(22),
        user: Some("root".into()),
        identity_files: vec!["/k/own".into()],
        ..request("web1")
    };
    let found = resolve(text, &asked).await.unwrap();
    assert_eq!(
        (found.name.as_str(), found.address().as_str(), found.user.as_str()),
        ("web1", "10.0.0.5", "root")
    );
    assert_eq!(found.identity_files[0], IdentityFile { path: "/k/own".into(), named: true });
    assert_eq!(found.host_keys.unknown, UnknownHostKey::Refuse);
}

#[tokio::test]
async fn jump_hosts_have_their_own_configuration() {
    let text = "Host app\n ProxyJump bob@edge:2200,inner\nHost edge\n HostName 192.0.2.1\n ProxyJump outer\n\
                Host inner\n User ivy\n ProxyJump nowhere\n";
    let Some(found) = resolve(text, &request("app")).await else {
        return;
    };
    let hops: Vec<String> =
        found.jump.iter().map(|hop| format!("{}@{}", hop.user, hop.address())).collect();
    let local = resolve("", &request("any")).await.unwrap().user;
    assert_eq!(hops, [format!("{local}@outer"), "bob@192.0.2.1:2200".into(), "ivy@inner".into()]);

    let direct = Request { jump: Some("none".into()), ..request("app") };
    assert!(resolve(text, &direct).await.unwrap().jump.is_empty());

    let folder = tempfile::tempdir().unwrap();
    let circle = environment(folder.path(), "Host a\n ProxyJump b\nHost b\n ProxyJump a\n");
    assert!(matches!(
        Resolver::default().resolve(&circle, &request("a")).await,
        Err(Error::Configuration { .. })
    ));
}

#[tokio::test]
async fn hosts_that_the_same_lines_match_share_one_answer() {
    for (text, processes) in [
        ("Host web*\n User deploy\nHost *\n Port 2200\n", 2),
        ("Host *\n HostName %h.example.com\n", 4),
        ("Match host web1\n User deploy\n", 4),
        ("Host web1 web2\n HostName 192.0.2.1\n", 3),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let environment = environment(folder.path(), text);
        if environment.ssh_program.is_none() {
            return;
        }
        let resolver = Resolver::default();
        for name in ["web1", "web2", "db1", "db2"] {
            let shared = resolver.resolve(&environment, &request(name)).await.unwrap().destination;
            let alone = Resolver::default()
                .resolve(&environment, &request(name))
                .await
                .unwrap()
                .destination;
            assert_eq!(format!("{shared:?}"), format!("{alone:?}"), "{text}");
        }
        assert_eq!(resolver.answers.lock().unwrap().len(), processes, "{text}");
    }
}

#[tokio::test]
async fn without_the_program_there_are_defaults_and_a_warning() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".ssh")).unwrap();
    std::fs::write(home.path().join(".ssh/config"), "Host *\n Port 2200\n").unwrap();
    let environment = Environment::new(Some(home.path().into()), "zoe", SystemTime::now);
    let resolved = Resolver::default().resolve(&environment, &request("web1")).await.unwrap();
    assert_eq!((resolved.destination.port, resolved.destination.user.as_str()), (22, "zoe"));
    assert_eq!(resolved.destination.host_keys.user_files[0], home.path().join(".ssh/known_hosts"));
    assert_eq!(resolved.warnings.len(), 1);
}

#[tokio::test]
async fn names_that_mean_something_to_a_shell_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let environment = environment(folder.path(), "Host *\n ProxyCommand nc %h %p %r %n\n");
    for (host, user, reason) in [
        ("web1;id", "zoe", "is no host name"),
        ("$(id)", "zoe", "is no host name"),
        ("a`id`", "zoe", "is no host name"),
        ("-oProxyCommand=id", "zoe", "is no host name"),
        ("web1", "zoe|id", "is no user name"),
        ("web1", "-l", "is no user name"),
        ("web1", "zoe -oX", "is no user name"),
        ("web1", "zoe\\", "is no user name"),
    ] {
        let request = Request { user: Some(user.into()), ..request(host) };
        let error = Resolver::default().resolve(&environment, &request).await.unwrap_err();
        assert!(error.to_string().contains(reason), "{host} {user}: {error}");
    }
    let jumping = Request { jump: Some("zoe@gate,x`id`@edge".into()), ..request("web1") };
    if environment.ssh_program.is_some() {
        let error = Resolver::default().resolve(&environment, &jumping).await.unwrap_err();
        assert!(error.to_string().contains("is no user name"), "{error}");
    }
    for (host, user) in [
        ("web-1.example.com", "zoe"),
        ("2001:db8::1", "CORP\\john smith"),
        ("fe80::1%eth0", "web1$"),
    ] {
        let request = Request { user: Some(user.into()), ..request(host) };
        if environment.ssh_program.is_some() {
            assert!(Resolver::default().resolve(&environment, &request).await.is_ok(), "{host}");
        }
    }
}

#[test]
fn hops_are_read_as_openssh_reads_them() {
    for (text, user, host, port) in [
        ("edge", None, "edge", None),
        ("bob@edge:2200", Some("bob"), "edge", Some(2200)),
        ("ssh://bob@edge:22", Some("bob"), "edge", Some(22)),
        ("[2001:db8::1]:2200", None, "2001:db8::1", Some(2200)),
        ("2001:db8::1", None, "2001:db8::1", None),
    ] {
        let hop = parse_hop(text).unwrap();
        assert_eq!(
            (hop.user.as_deref(), hop.name.as_str(), hop.port),
            (user, host, port),
            "{text}"
        );
    }
    assert!(parse_hop("edge:http").is_none());
}
