//! Every mistake in a definition is reported, with its place.

use token_broker::infra::providers::Catalogue;

use super::{SHORT, load};

/// `line:column path: message` of each mistake in a text.
pub(super) fn mistakes(text: &str) -> Vec<String> {
    match load(&[text]) {
        Ok(_) => Vec::new(),
        Err(errors) => errors
            .into_iter()
            .map(|e| {
                assert!(e.file.ends_with("0.toml"), "{e}");
                assert!(e.to_string().starts_with(&format!("{}:{}:{}: ", e.file, e.line, e.column)), "{e}");
                format!("{}:{} {}: {}", e.line, e.column, e.path, e.message)
            })
            .collect(),
    }
}

/// Replaces one line of [`SHORT`] (or adds lines at its end) and tells what is reported. In each row: what is replaced,
/// what with, and each mistake by line, column, path and a part of its message.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_mistake_is_reported_with_its_place() {
    let token = "token = \"https://auth.example.com/token\"";
    let kind = "kind = \"none\"";
    let files = "scopes = [\"files.read\"]";
    let end = "";
    let all_endpoints = "[endpoints]\nauthorization = \"https://auth.example.com/authorize\"\ntoken = \"https://auth.example.com/token\"";
    let rows: &[(&str, &str, &[&str])] = &[
        // Syntax.
        (kind, "kind = none", &["8:8 : "]),
        (kind, "kind = \"none\"\nkind = \"none\"", &["9:1 : duplicate key"]),
        // Fields.
        (
            kind,
            "kind = \"none\"\nkindd = 1",
            &["9:1 revocation.kindd: unknown field; known here: kind, token"],
        ),
        (
            end,
            "[refreshing]\nrotation = \"none\"",
            &["13:2 refreshing: unknown field; known here: authorization,"],
        ),
        ("id = \"example\"", "id = 7", &["2:6 id: must be a string, not of type integer"]),
        ("id = \"example\"", "id = \"Ex ample\"", &["2:6 id: must begin with a letter or digit"]),
        ("id = \"example\"", "", &["1:1 id: missing: what registrations call"]),
        ("display_name = \"Example\"", "", &["1:1 display_name: missing"]),
        ("display_name = \"Example\"", "display_name = \"\"", &["3:16 display_name: must not be empty"]),
        (
            "display_name = \"Example\"",
            "display_name = \"a\\u0000b\"",
            &["3:16 display_name: must not contain control"],
        ),
        (
            "[endpoints]",
            "response = 3\n[endpoints]",
            &["4:12 response: must be a table, not of type integer"],
        ),
        (all_endpoints, "endpoints = 3", &["4:13 endpoints: must be a table, not of type integer"]),
        // URLs.
        (token, "", &["4:1 endpoints.token: missing: a URL, or discovery"]),
        (
            token,
            "token = \"http://auth.example.com/token\"",
            &["6:9 endpoints.token: must begin with https://"],
        ),
        (
            token,
            "token = \"https://a:b@auth.example.com/\"",
            &["6:9 endpoints.token: must not contain user information"],
        ),
        (
            token,
            "token = \"https://auth.example.com/#a\"",
            &["6:9 endpoints.token: must not contain a fragment"],
        ),
        (token, "token = \"/token\"", &["6:9 endpoints.token: must be a complete URL"]),
        (
            token,
            "token = \"https://{tenant}.example.com/\"",
            &["6:9 endpoints.token: {tenant} is not declared"],
        ),
        (
            token,
            "token = \"https://{tenant.example.com/\"",
            &["6:9 endpoints.token: has a '{' without a '}'"],
        ),
        (
            end,
            "[variables.tenant]\ndescription = \"d\"",
            &["13:12 variables.tenant: no URL uses this variable"],
        ),
        (
            token,
            "token = \"https://x.com/\"\ndiscovery = true",
            &[
                "4:1 endpoints.issuer: missing",
                "5:17 endpoints.authorization: comes from the issuer's metadata",
                "6:9 endpoints.token: comes from the issuer's metadata",
            ],
        ),
        (token, "token = \"https://x.com/\"\niss_required = true", &["4:1 endpoints.issuer: missing"]),
        // Other grants than the code grant.
        (
            end,
            "[authorization]\nresponse_type = \"token\"",
            &["14:1 authorization.response_type: only the authorization code grant"],
        ),
        (
            end,
            "[authorization]\nparams = { response_type = \"token\" }",
            &["14:12 authorization.params.response_type: only the authorization code grant"],
        ),
        (
            end,
            "[token]\nexchange_params = { grant_type = \"password\" }",
            &["14:21 token.exchange_params.grant_type: only the authorization code grant"],
        ),
        (
            end,
            "[token.refresh_params]\npassword = \"x\"",
            &["14:1 token.refresh_params.password: only the authorization code grant"],
        ),
        (
            end,
            "[authorization.params]\nresponse_mode = \"fragment\"",
            &["14:1 authorization.params.response_mode: can't be changed"],
        ),
        // The broker's own parameters.
        (
            end,
            "[authorization.params]\nstate = \"x\"\nnonce = \"x\"\ncode_challenge = \"x\"\nclient_id = \"x\"\nscope = \"x\"\nredirect_uri = \"x\"",
            &[
                "14:1 authorization.params.state: is set by the broker",
                "15:1 authorization.params.nonce: is set by the broker",
                "16:1 authorization.params.code_challenge: is set by the broker",
                "17:1 authorization.params.client_id: is set by the broker",
                "18:1 authorization.params.scope: is set by the broker",
                "19:1 authorization.params.redirect_uri: is set by the broker",
            ],
        ),
        (
            end,
            "[token]\nrefresh_params = { client_secret = \"x\", refresh_token = \"x\" }",
            &[
                "14:20 token.refresh_params.client_secret: is set by the broker",
                "14:41 token.refresh_params.refresh_token: is set by the broker",
            ],
        ),
        (
            end,
            "[token.headers]\nAuthorization = \"x\"",
            &["14:1 token.headers.Authorization: is set by the broker"],
        ),
        (
            end,
            "[token.headers]\n\"a b\" = \"x\"",
            &["14:1 token.headers.\"a b\": is not the name of a header"],
        ),
        (end, "[token.headers]\na = \"é\"", &["14:5 token.headers.a: must be printable ASCII"]),
        (end, "[token.headers]\na = \"x\"\nA = \"x\"", &["15:1 token.headers.A: is given twice"]),
        // PKCE.
        (
            end,
            "[authorization]\npkce = false",
            &["14:8 authorization.pkce: must be a string, not of type boolean"],
        ),
        (
            end,
            "[authorization]\npkce = \"plain\"",
            &["14:8 authorization.pkce: must be \"S256\": \"plain\" shows"],
        ),
        (end, "[authorization]\npkce = \"none\"", &["14:8 authorization.pkce: must be \"S256\", or \"off\""]),
        (
            end,
            "[authorization]\nscope_param = \"state\"",
            &["14:15 authorization.scope_param: is a parameter with another"],
        ),
        (
            end,
            "[authorization]\nscope_separator = \"x\"",
            &["14:19 authorization.scope_separator: must be one to three"],
        ),
        (
            end,
            "[client]\nauth = \"secret\"",
            &["14:8 client.auth: must be one of \"basic\", \"post\", \"private_key_jwt\""],
        ),
        (
            end,
            "[client]\nauth = \"none\"\nsecret = \"optional\"",
            &["15:10 client.secret: a client with this auth has no secret"],
        ),
        (
            end,
            "[client]\nauth = \"private_key_jwt\"\nsecret = \"optional\"\nassertion_audience = \"both\"",
            &[
                "15:10 client.secret: a client with this auth has no secret",
                "16:22 client.assertion_audience: must be one of \"issuer\", \"token_endpoint\"",
            ],
        ),
        (
            end,
            "[client]\nauth = \"none\"\nassertion_audience = \"issuer\"",
            &["15:22 client.assertion_audience: a client with auth = \"none\" signs nothing"],
        ),
        // Answers.
        (
            end,
            "[response]\naccess_token = \"access_token\"",
            &["14:16 response.access_token: must be a JSON pointer"],
        ),
        (end, "[response]\naccess_token = []", &["13:1 response.access_token: missing: at least one"]),
        (end, "[response]\nscope = [\"/a\", \"/b~2\"]", &["14:16 response.scope[1]: must be a JSON pointer"]),
        (
            end,
            "[response]\nexpires_in_unit = \"minutes\"",
            &["14:19 response.expires_in_unit: must be one of \"seconds\", \"milliseconds\""],
        ),
        (
            end,
            "[response]\ndefault_lifetime = \"0s\"",
            &["14:20 response.default_lifetime: must not be zero"],
        ),
        (
            end,
            "[response.error_aliases]\ngone = \"dead\"",
            &["14:8 response.error_aliases.gone: must be one of invalid_request,"],
        ),
        (
            end,
            "[response.scope_aliases]\n\"a b\" = \"c\"",
            &["14:1 response.scope_aliases.\"a b\": a scope consists of"],
        ),
        (
            end,
            "[response.scope_implies]\na = \"b\"",
            &["14:5 response.scope_implies.a: must be a list of strings, not of type string"],
        ),
        // Refresh.
        (
            end,
            "[refresh]\nrotation = \"sometimes\"",
            &["14:12 refresh.rotation: must be one of \"none\", \"strict\", \"grace\""],
        ),
        (end, "[refresh]\nrotation = \"grace\"", &["13:1 refresh.grace: missing"]),
        (end, "[refresh]\nrotation = \"grace\"\ngrace = \"10s\"", &["15:9 refresh.grace: is too short"]),
        (end, "[refresh]\ngrace = \"10m\"", &["14:9 refresh.grace: belongs to rotation = \"grace\""]),
        (
            end,
            "[refresh]\nidle_limit = \"1 week\"",
            &["14:14 refresh.idle_limit: must be a whole number with s, m, h or d"],
        ),
        (end, "[refresh]\nidle_limit = \"1m\"", &["14:14 refresh.idle_limit: must be an hour at least"]),
        (end, "[refresh]\nexpiry_margin = \"2h\"", &["14:17 refresh.expiry_margin: must be an hour at most"]),
        // Revocation.
        (kind, "", &["7:1 revocation.kind: missing: \"none\" if"]),
        (kind, "kind = \"rfc7009\"", &["7:1 revocation: kind \"rfc7009\" needs endpoints.revocation"]),
        (kind, "kind = \"none\"\nurl = \"https://x.com\"", &["9:1 revocation.url: unknown field"]),
        (kind, "kind = \"call\"", &["7:1 revocation.auth: missing", "7:1 revocation.url: missing"]),
        (
            kind,
            "kind = \"call\"\nurl = \"https://x.com/{client}\"\nauth = \"bearer\"",
            &["9:7 revocation.url: {client} is not declared"],
        ),
        (
            kind,
            "kind = \"call\"\nurl = \"https://x.com\"\nauth = \"client_basic\"",
            &["7:1 revocation.token_param: missing"],
        ),
        (
            kind,
            "kind = \"call\"\nurl = \"https://x.com\"\nauth = \"bearer\"\nmethod = \"GET\"\ntoken_param = \"t\"",
            &["7:1 revocation: a GET has no body"],
        ),
        (
            token,
            "token = \"https://x.com/\"\nrevocation = \"https://x.com/\"",
            &["8:1 revocation: endpoints.revocation is for kind"],
        ),
        // Identity.
        (
            end,
            "[identity]\nid_token = true",
            &["13:1 identity: an ID token is compared with endpoints.issuer"],
        ),
        (
            end,
            "[identity.userinfo]\nsubject = \"/id\"",
            &["13:2 identity: userinfo needs endpoints.userinfo"],
        ),
        (
            end,
            "[identity.token_response]\nlabel = \"/id\"",
            &["13:1 identity.token_response.subject: missing"],
        ),
        // Services.
        ("[services.files]", "[services]\n[other]", &["1:1 services: missing", "10:2 other: unknown field"]),
        (
            "[services.files]",
            "[services.\"my files\"]",
            &["9:11 services.\"my files\": must begin with a letter or digit"],
        ),
        (files, "", &["9:1 services.files.scopes: missing"]),
        (
            files,
            "scopes = \"files.read\"",
            &["11:10 services.files.scopes: must be a list of strings, not of type string"],
        ),
        (
            files,
            "scopes = [\"a b\", \"c\", \"d\\\\e\", 1]",
            &[
                "11:11 services.files.scopes[0]: contains \" \", which separates scopes",
                "11:23 services.files.scopes[2]: a scope consists of",
                "11:31 services.files.scopes[3]: must be a string, not of type integer",
            ],
        ),
        (files, "scopes = []\ngrant = \"A\"", &["12:9 services.files.grant: must begin with a letter"]),
    ];
    let mut wrong = Vec::new();
    for (old, new, expected) in rows {
        let text = if old.is_empty() { format!("{SHORT}{new}\n") } else { SHORT.replacen(old, new, 1) };
        let found = mistakes(&text);
        let same = found.len() == expected.len()
            && found.iter().zip(*expected).all(|(found, expected)| found.starts_with(expected));
        if !same {
            wrong.push(format!("{new:?}\n  expected {expected:#?}\n  found {found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn mistakes_of_all_files_are_reported_at_once() {
    let errors = load(&["id = ", "id = \"Bad\"\nwhat = 1", SHORT, SHORT]).unwrap_err();
    let of = |file: &str| errors.iter().filter(|e| e.file.ends_with(file)).count();
    assert_eq!(of("0.toml"), 1, "{errors:#?}");
    assert!(of("1.toml") >= 5, "{errors:#?}");
    assert_eq!(of("2.toml"), 0, "{errors:#?}");
    let duplicate = errors.iter().find(|e| e.file.ends_with("3.toml")).unwrap();
    assert_eq!((duplicate.line, duplicate.column, duplicate.path.as_str()), (2, 6, "id"));
    assert!(duplicate.message.contains("2.toml"), "{duplicate}");
}

#[test]
fn unreadable_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("binary.toml");
    std::fs::write(&binary, [0xff, 0xfe]).unwrap();
    let large = folder.path().join("large.toml");
    std::fs::write(&large, vec![b'#'; 1_100_000]).unwrap();
    let files = [folder.path().join("absent.toml"), folder.path().to_owned(), binary, large];
    let errors = Catalogue::load(&files).unwrap_err();
    assert_eq!(errors.len(), 4, "{errors:#?}");
    for (error, file) in errors.iter().zip(&files) {
        assert_eq!((error.file.as_str(), error.line, error.column), (file.to_str().unwrap(), 1, 1));
    }
}
