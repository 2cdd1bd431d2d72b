// The application's user; docs/security.md has what each part needs where they have users of their own.
db.getSiblingDB("admin").createUser({
  user: "app",
  pwd: fs.readFileSync("/run/secrets/mongodb-password", "utf8").trim(),
  roles: [
    {role: "readWrite", db: "aid-kit"},
    {role: "dbAdmin", db: "aid-kit"},
  ],
});
