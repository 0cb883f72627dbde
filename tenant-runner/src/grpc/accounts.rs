//! The client's people.

use super::convert::{given, time};
use super::{Service, guard, status, wire};
use nexaas_common::secret::SecretString;
use nexaas_engine::users::{NewUser, Session, User};
use std::net::IpAddr;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl wire::accounts_server::Accounts for Service {
    async fn register(&self, request: Request<wire::RegisterRequest>) -> Result<Response<wire::Session>, Status> {
        let wire::RegisterRequest { company_name, username, password, remote_address } = request.into_inner();
        let request = NewUser {
            company_name: given(company_name),
            username,
            password: SecretString::from(password),
            remote_address: address(remote_address)?,
        };
        let session = self.app.engine().users().register(request).await.map_err(status::of)?;
        Ok(Response::new(to_session(&session)))
    }

    async fn login(&self, request: Request<wire::LoginRequest>) -> Result<Response<wire::Session>, Status> {
        let wire::LoginRequest { username, password, remote_address } = request.into_inner();
        let password = SecretString::from(password);
        let remote = address(remote_address)?;
        let login = self.app.engine().users().login(&username, password, remote.as_deref());
        let session = login.await.map_err(status::of)?;
        Ok(Response::new(to_session(&session)))
    }

    async fn me(&self, request: Request<wire::MeRequest>) -> Result<Response<wire::User>, Status> {
        let principal = guard::principal(&request)?;
        Ok(Response::new(to_user(principal.user().map_err(|e| status::of_refusal(&e))?)))
    }

    async fn logout(&self, request: Request<wire::LogoutRequest>) -> Result<Response<wire::LogoutResponse>, Status> {
        let principal = guard::principal(&request)?;
        let user = principal.user().map_err(|e| status::of_refusal(&e))?;
        self.app.engine().users().logout(user).await.map_err(status::of)?;
        Ok(Response::new(wire::LogoutResponse {}))
    }

    async fn status(&self, _: Request<wire::AccountsStatusRequest>) -> Result<Response<wire::AccountsStatus>, Status> {
        let state = self.app.engine().users().status().await.map_err(status::of)?;
        Ok(Response::new(wire::AccountsStatus {
            has_company: state.has_company,
            company: state.company.unwrap_or_default(),
            registration_open: state.registration_open,
        }))
    }
}

fn address(text: String) -> Result<Option<String>, Status> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(Some(address.to_canonical().to_string())),
        Err(_) if text.is_empty() => Ok(None),
        Err(_) => Err(status::invalid("remote_address", "must be an IP address")),
    }
}

fn to_session(session: &Session) -> wire::Session {
    wire::Session {
        token: session.token.clone(),
        user: Some(to_user(&session.user)),
        expires_at: time(session.expires_at),
    }
}

fn to_user(user: &User) -> wire::User {
    wire::User {
        id: user.id.clone(),
        username: user.username.clone(),
        role: user.role.clone(),
        company_id: user.company_id.clone(),
        company: user.company.clone(),
    }
}
