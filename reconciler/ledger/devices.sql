CREATE TABLE IF NOT EXISTS devices (ring TEXT, device TEXT, state TEXT, PRIMARY KEY (ring, device));
PRAGMA user_version = 1;
