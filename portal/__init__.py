"""How people come in: the account page (`portal.web`), submission (`portal.intake`) and the command line (`portal.cli`)."""
