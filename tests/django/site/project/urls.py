"""The admin, a view that puts a job, and pq's page."""

from django.contrib import admin
from django.urls import include, path
from shop import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("order/<customer>", views.order),
    path("queues/", include("pq.contrib.django.urls")),
]
