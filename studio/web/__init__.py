"""The studio's pages: NiceGUI elements over a `latentedit.studio.session.Session`, on the loopback
device only."""
