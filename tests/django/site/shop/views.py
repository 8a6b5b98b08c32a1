"""A view that takes an order."""

from django.db import transaction
from django.http import HttpResponse

from shop.models import Order
from shop.tasks import send


@transaction.atomic
def order(request, customer):
    """Take an order, unless it is nobody's."""
    send(Order.objects.create(customer=customer).id)
    if customer == "nobody":
        raise ValueError("no such customer")
    return HttpResponse("thank you")
