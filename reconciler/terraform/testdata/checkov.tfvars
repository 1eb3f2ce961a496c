repository = "acme/models"
