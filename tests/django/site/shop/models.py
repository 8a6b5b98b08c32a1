"""What is sold."""

from django.db import models


class Order(models.Model):
    """An order, and what was done about it."""

    customer = models.TextField()
    mails = models.IntegerField(default=0)
