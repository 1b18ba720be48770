//! One question, from the bridge to its answer.

use super::door::{Question, reply_entry, reply_open, reply_open_dir, reply_value};
use super::server::Server;

impl Server<'_> {
    /// Answers; whatever goes wrong is an answer, too.
    pub(super) async fn answer(&self, question: Question) {
        match question {
            Question::Lookup { parent, name, reply } => match self.lookup(parent, &name).await {
                Ok(found) => reply_entry(reply, &found),
                Err(fault) => reply.error(self.tell(parent, fault).await),
            },
            Question::Attr { ino, reply } => match self.attr(ino).await {
                Ok((attr, valid)) => reply.attr(&valid, &attr),
                Err(fault) => reply.error(self.tell(ino, fault).await),
            },
            Question::Target { ino, reply } => match self.target(ino).await {
                Ok(target) => reply.data(&target),
                Err(fault) => reply.error(self.tell(ino, fault).await),
            },
            Question::Open { ino, reply } => match self.open(ino).await {
                Ok(()) => reply_open(reply),
                Err(fault) => reply.error(self.tell(ino, fault).await),
            },
            Question::OpenDir { ino, reply } => match self.open(ino).await {
                Ok(()) => reply_open_dir(reply),
                Err(fault) => reply.error(self.tell(ino, fault).await),
            },
            Question::Read { ino, offset, len, reply } => match self.read(ino, offset, len).await {
                Ok(bytes) => reply.data(&bytes),
                Err(fault) => reply.error(self.tell(ino, fault).await),
            },
            Question::List { ino, behind, mut reply } => {
                let mut added = false;
                let mut sink = |cookie, name: &[u8], attr: &_, valid| {
                    let taken = reply.add(cookie, name, attr, valid);
                    added |= taken;
                    taken
                };
                match self.list(ino, behind, &mut sink).await {
                    Ok(()) => reply.done(),
                    // What was found is given first; the kernel then asks again, and meets the error.
                    Err(_) if added => reply.done(),
                    Err(fault) => reply.error(self.tell(ino, fault).await),
                }
            }
            Question::Xattr { ino, name, room, reply } => match self.xattr(ino, &name).await {
                Ok(value) => reply_value(reply, room, &value),
                Err(fault) => reply.error(self.tell(ino, fault).await),
            },
            Question::Xattrs { ino, room, reply } => match self.xattrs(ino).await {
                Ok(names) => reply_value(reply, room, &names),
                Err(fault) => reply.error(self.tell(ino, fault).await),
            },
            Question::Seek { ino, offset, whence, reply } => match self.seek(ino, offset, whence).await {
                Ok(found) => reply.offset(found),
                Err(fault) => reply.error(self.tell(ino, fault).await),
            },
        }
    }
}
